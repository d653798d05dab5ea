"""Models of other programs: their files to our shapes and weights."""
