"""The pairs of the box: which is in service at each place, what is wrong with the others, when they must be renewed.

=========== ==========================================================================================
places      where a pair is needed, by whom, and what that place asks of it
keeper      ``Keyring``: the pair in service at each place; a new one takes over without a restart
records     pairs that were installed in the box itself (sealed), and the reminders that were given
acts        what people do: install a pair, take it out again
inventory   every pair with its site, its use and its end, as the agency lists them
reminders   tells of each end at 90, 60, 30, 15 and 7 days, once each
=========== ==========================================================================================
"""
