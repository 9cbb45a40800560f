"""Reference networks by name, and the loading of users' own models.

A model is any callable from float32 inputs (N, *shape), images (N, C, H, W) in [0, 1], to logits (N, K); its
normalisation is inside it.
onnxruntime and the hubs' libraries are imported only when a model needs them.
"""

from smoothcert.models.layers import ACTIVATIONS, Centre, Normalise
from smoothcert.models.loaded import MODEL_FORMS, LoadedModel, is_model_spec, label_model, load_model, model_sources
from smoothcert.models.registry import MODELS, build_model, model_names, model_options

__all__ = ["ACTIVATIONS", "MODELS", "MODEL_FORMS", "Centre", "LoadedModel", "Normalise", "build_model",
           "is_model_spec", "label_model", "load_model", "model_names", "model_options", "model_sources"]
