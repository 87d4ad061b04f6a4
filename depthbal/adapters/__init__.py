"""Other regression tasks on the same core: thin layers over data, losses, engine and reports."""
