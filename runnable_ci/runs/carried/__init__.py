"""Runs that several jobs share by folders, where there is no registry: what one leaves is carried to the next."""
