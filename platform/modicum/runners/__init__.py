"""Two ways to run the same study: in this process, or on Ray Tune."""
