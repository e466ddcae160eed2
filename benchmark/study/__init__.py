"""A user study without a server: blinded pages that are made, filled in and read back."""
