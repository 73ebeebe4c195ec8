"""One atomic change a file; the function is named as the file."""
