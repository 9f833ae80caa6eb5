"""Who the patient is: the national identity (INS), the traits, and their comparison. Pure: no protocol, no store."""
