"""Names of classes: lists of them, and how a model's and a data set's are matched. Nothing here imports torch."""

from smoothcert.classes.lists import (
    Label,
    class_columns,
    index_names,
    names_by_index,
    names_in_text,
    own_classes,
    read_class_names,
)
from smoothcert.classes.match import (
    USE_ITS_CLASSES,
    ClassWarning,
    are_alike,
    check_class_count,
    choose_names,
    in_order_of_numbers,
    match_classes,
    names_to_record,
    places_of,
    warn_of_text_order,
)

__all__ = [
    "USE_ITS_CLASSES", "ClassWarning", "Label", "are_alike", "check_class_count", "choose_names", "class_columns",
    "in_order_of_numbers", "index_names", "match_classes", "names_by_index", "names_in_text", "names_to_record",
    "own_classes", "places_of", "read_class_names", "warn_of_text_order",
]
