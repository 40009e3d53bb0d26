"""The methods of chapter 3, each with its losses."""
