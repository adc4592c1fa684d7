"""Who is who in a fleet: its own authority, the roles' and cameras' certificates, and what each may do."""
