"""Two files compared by what is in them: line by line, cell by cell, number by number."""
