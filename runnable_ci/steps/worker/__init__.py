"""Files that the user's own interpreter runs; they import nothing but the standard library."""
