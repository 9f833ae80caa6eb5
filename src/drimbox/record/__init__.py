"""What the box keeps of its own doings.

``logs`` writes the technical log (one JSON object per line, never health data); ``masking`` is its safety net;
``audit`` is the journal of who did what to which object, kept in PostgreSQL; ``pseudonym`` lets the journal be searched
by patient without holding any identity.
"""
