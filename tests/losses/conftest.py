from tests.modes import evaluate

__all__ = ["evaluate"]
