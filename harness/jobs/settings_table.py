"""The paper's Table 4 beside what its settings become at each scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.retrieval.settings import RetrieverSettings
    from leaderboard.tables import PaperTable


def table_4() -> PaperTable:
    """Table 4 with the settings of m0, which is just that, at full and tiny scale."""
    from harness.retrieval.recipes import find_recipe
    from leaderboard.tables import settings_table

    m0 = find_recipe("m0")
    return settings_table({"here, full": in_words(m0.full), "here, tiny": in_words(m0.tiny)})


def in_words(settings: RetrieverSettings) -> dict[str, str]:
    """Settings by the names of Table 4.

    Args:
        settings: of a model at a scale.
    """
    losses = settings.losses
    weights = {
        "Softmax": losses.softmax.weight,
        "Center": losses.centre.weight,
        "Triplet": losses.triplet.weight,
        "MS": losses.multi_similarity.weight,
    }
    options = ", ".join(f"{name} {value}" for name, value in settings.backbone_options.items())
    return {
        "Backbone": f"{settings.backbone} ({options})" if options else settings.backbone,
        "Descriptor": " + ".join(settings.descriptors),
        "Input size": f"{settings.input_wh[0]} × {settings.input_wh[1]}",
        "Output dim.": f"{settings.output_dim:,}",
        "Total epochs": str(settings.epochs) if settings.num_steps is None else f"{settings.num_steps} steps",
        "Optimizer": settings.optimizer,
        "Init. LR": f"{settings.learning_rate:g}",
        "LR decay": "cosine",
        "Losses": " + ".join(name for name, weight in weights.items() if weight),
    }
