"""A human as an oracle, asked on a page in the browser or in a terminal."""
