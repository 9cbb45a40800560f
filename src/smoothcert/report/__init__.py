"""Evidence for people: tables, pictures and pages from results. Nothing here imports torch."""
