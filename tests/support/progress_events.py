"""Callbacks that note what they are told."""

from smoothcert.progress import Event, Progress


def sampled(told: list[int]) -> Progress:
    """Note the records done of each event of sampling."""
    def note(event: Event) -> None:
        if event.phase == "sampling":
            told.append(event.done)

    return note
