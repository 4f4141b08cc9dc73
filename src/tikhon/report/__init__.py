"""What a comparison shows: numbers for machines, a table for the terminal, a page for people."""
