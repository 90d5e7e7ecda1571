"""The pair: an image encoder and a text encoder, projected into one space."""

from torch import Tensor, nn

from pretrain.data.tokens import PackedTexts
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.models.image.hierarchical import HierarchicalEncoder
from pretrain.models.image.vit import VisionTransformer
from pretrain.models.text.part import PartTextEncoder
from pretrain.models.text.whole import WholeTextEncoder
from pretrain.ops.linear import Linear


def _projection(width: int, embed_dim: int) -> nn.Linear:
    projection = Linear(width, embed_dim, bias=False)
    nn.init.normal_(projection.weight, std=width**-0.5)
    return projection


class DualEncoder(nn.Module):
    """Image and text encoders with their projections to the joint width.

    The whole and, where an encoder offers them, the parts have projections of their own.

    Args:
        image: image encoder.
        part_text: encoder of single texts.
        whole_text: encoder of the caption from its parts; without one, the caption's feature is
            that of the image's first text (one text an image: plain CLIP).
        embed_dim: joint width D.
    """

    def __init__(
        self,
        image: HierarchicalEncoder | VisionTransformer,
        part_text: PartTextEncoder,
        whole_text: WholeTextEncoder | None,
        embed_dim: int,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.image = image
        self.part_text = part_text
        self.whole_text = whole_text
        self.project_image = _projection(image.width, embed_dim)
        self.project_text = _projection(part_text.width, embed_dim)
        self.project_fine_image: nn.Linear | None = None
        if "fine_pooled" in image.offers:
            self.project_fine_image = _projection(image.width, embed_dim)
        self.project_part_text: nn.Linear | None = None
        if whole_text is not None:
            self.project_part_text = _projection(part_text.width, embed_dim)

    @property
    def offers(self) -> tuple[str, ...]:
        """The features it gives: `image.<field>` and `text.<field>`."""
        return (*(f"image.{name}" for name in self.image.offers), "text.whole", "text.parts")

    def stem_features(self, images: Tensor) -> Tensor | None:
        """(B, 3, H, W) images -> what of their encoding depends on the whole batch, or None."""
        return self.image.stem_features(images)

    def encode_image(
        self,
        images: Tensor,
        with_hierarchy: bool = False,
        with_tokens: bool = True,
        stem_features: Tensor | None = None,
    ) -> ImageFeatures:
        """(B, 3, H, W) normalised images -> features of width D, not normalised.

        Args:
            images: as above.
            with_hierarchy: return the segments of every level too.
            with_tokens: return `tokens` too, those of the last stage.
            stem_features: these images' rows of what `stem_features` gave for the whole batch.
        """
        features = self.image(
            images,
            with_hierarchy=with_hierarchy,
            with_tokens=with_tokens,
            stem_features=stem_features,
        )
        return self.project_image_features(features)

    def encode_text(self, texts: PackedTexts) -> TextFeatures:
        """Packed texts, K an image -> features of width D, not normalised."""
        texts_of_image = texts.num_texts_per_image
        parts = self.part_text(texts.tokens, texts.offsets).unflatten(0, (-1, texts_of_image))
        return self.project_text_features(parts)

    def project_image_features(self, features: ImageFeatures) -> ImageFeatures:
        """Features of the image encoder's width -> features of width D."""
        projected = ImageFeatures(
            pooled=self.project_image(features.pooled),
            tokens=None if features.tokens is None else self.project_image(features.tokens),
            hierarchy=features.hierarchy,
        )
        if self.project_fine_image is not None:
            projected.fine_pooled = self.project_fine_image(features.fine_pooled)
            projected.fine_tokens = self.project_fine_image(features.fine_tokens)
        return projected

    def project_text_features(self, parts: Tensor) -> TextFeatures:
        """(B, K, width) features of single texts -> caption and part features of width D."""
        if self.whole_text is None or self.project_part_text is None:
            projected = self.project_text(parts)
            return TextFeatures(whole=projected[:, 0], parts=projected)
        return TextFeatures(
            whole=self.project_text(self.whole_text(parts)), parts=self.project_part_text(parts)
        )
