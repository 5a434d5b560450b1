"""Shared and private latent signals of neural and behavioural recordings.

`colatent.GPFA` fits arrays without any workflow:

    import colatent
    model = colatent.GPFA(n_latents=3, bin_width=0.02).fit(square_rooted_counts)
    latents = model.transform(square_rooted_counts)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colatent.models.gpfa.counts import CountGPFA
    from colatent.models.gpfa.gaussian import GPFA

__all__ = ["GPFA", "CountGPFA"]


def __getattr__(name: str) -> Any:
    # Not imported above: the workflow reads its config without waiting for torch.
    if name == "GPFA":
        from colatent.models.gpfa.gaussian import GPFA

        return GPFA
    if name == "CountGPFA":
        from colatent.models.gpfa.counts import CountGPFA

        return CountGPFA
    raise AttributeError(f"module 'colatent' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
