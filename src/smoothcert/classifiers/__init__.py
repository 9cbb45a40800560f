"""Base classifiers, however a user names them, and the folders that hold trained ones."""
