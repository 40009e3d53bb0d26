"""Models as folders: those of Hugging Face, and networks of our own."""
