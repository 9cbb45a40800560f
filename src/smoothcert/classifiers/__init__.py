"""Base classifiers, whichever way they are named, and the folders that trained ones are kept in."""
