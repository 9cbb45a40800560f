"""Evidence for people: tables and pictures from stored records. Nothing here imports torch."""
