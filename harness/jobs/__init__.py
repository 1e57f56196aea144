"""What people ask for; every command calls one of these."""
