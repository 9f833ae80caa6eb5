"""``drimbox bench consumer``: the radiologist's minute on the official performance study, near and over a thin line."""
