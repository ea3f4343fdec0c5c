"""A class-conditional denoiser for pictures: a small U-Net of `diffusers` under the noise schedule of DDPM.

x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε; the network predicts ε from x_t, t and the class (DDPM, arXiv 2006.11239), with the
cosine schedule of arXiv 2102.09672. Needs the package diffusers (extra `diffusion`).

Shapes: B batch, C colour channels that are noised, 3 or 1, S side of the picture in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.batch import Batch
from mt2st.encoders._lazy import LazyFeatures
from mt2st.errors import Mt2stError, check_range


@dataclass(frozen=True)
class DenoiserConfig:
    """Size of the U-Net and its noise schedule."""

    image_size: int = 32
    """height and width in pixels"""
    fold: int = 2
    """side of the pixel blocks that are folded into channels before the first convolution; 1 = none"""
    widths: tuple[int, ...] = (32, 48)
    """channels at each resolution, halved from one to the next; multiples of 8"""
    classes: int = 10
    """classes to condition on; one more stands for "any" """
    drop_class: float = 0.1
    """share of training images whose class is hidden, in [0, 1]"""
    noise_levels: int = 1000
    """steps of the noise schedule"""
    channels: Literal[3, 1] = 3
    """colour channels that are noised: 3, or 1 for grey pictures, whose mean over the colours is taken"""

    def __post_init__(self) -> None:
        smallest = self.fold * 2 ** (len(self.widths) - 1)
        if not self.widths or self.fold < 1 or self.image_size % smallest:
            raise Mt2stError(
                f"image_size = {self.image_size} cannot be folded by {self.fold} and halved "
                f"{max(0, len(self.widths) - 1)} times; choose a multiple of {smallest}"
            )
        if any(width < 8 or width % 8 for width in self.widths):
            raise Mt2stError(f"widths = {self.widths} must be multiples of 8")
        check_range("drop_class", self.drop_class, 0.0, 1.0, "it is a share of the images, for example 0.1")
        if self.channels not in (1, 3):
            raise Mt2stError(f"channels = {self.channels!r} must be 3, or 1 for grey pictures")


def cosine_signal(noise_levels: int = 1000) -> Tensor:
    """ᾱ at each level [noise_levels], the cosine schedule of arXiv 2102.09672."""
    from diffusers import DDPMScheduler

    signal: Tensor = DDPMScheduler(noise_levels, beta_schedule="squaredcos_cap_v2").alphas_cumprod.float()
    return signal


class Denoiser(nn.Module):
    """The U-Net with the lazy features that objectives pull from.

    The bottleneck needs the down path alone, so an objective that asks for no more than that leaves the up path out.
    """

    signal: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        try:
            from diffusers import UNet2DModel
        except ImportError:
            raise Mt2stError(
                "diffusion needs the package diffusers; install it with pip install 'mt2st[diffusion]'"
            ) from None
        self.config = config
        self.any_class = config.classes
        channels = config.channels * config.fold**2
        levels = len(config.widths)
        self.unet = UNet2DModel(
            sample_size=config.image_size // config.fold,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=config.widths,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            norm_num_groups=8,
            attention_head_dim=8,
            num_class_embeds=config.classes + 1,
        )
        self.width = config.widths[-1]
        self.grid = config.image_size // config.fold // 2 ** (levels - 1)  # side of the bottleneck
        self.register_buffer("signal", cosine_signal(config.noise_levels), persistent=False)  # ᾱ, [noise levels]

    def features(self, batch: Batch) -> DenoiserFeatures:
        """Lazy features of one batch; nothing is computed before something asks."""
        return DenoiserFeatures(self, batch)

    def down(self, noisy: Tensor, level: Tensor, condition: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Bottleneck [B, C, h, w], what the up path takes from the down path, and the embedding of level and class."""
        unet: Any = self.unet
        embedding = unet.time_embedding(unet.time_proj(level).to(noisy.dtype)) + unet.class_embedding(condition)
        hidden = unet.conv_in(functional.pixel_unshuffle(noisy, self.config.fold))
        kept: tuple[Tensor, ...] = (hidden,)
        for block in unet.down_blocks:
            hidden, more = block(hidden_states=hidden, temb=embedding)
            kept += more
        return unet.mid_block(hidden, embedding), kept, embedding

    def up(self, bottleneck: Tensor, kept: tuple[Tensor, ...], embedding: Tensor) -> Tensor:
        """Predicted noise [B, C, S, S]."""
        unet: Any = self.unet
        hidden = bottleneck
        for block in unet.up_blocks:
            count = len(block.resnets)
            kept, more = kept[:-count], kept[-count:]
            hidden = block(hidden, more, embedding)
        hidden = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
        return functional.pixel_shuffle(hidden, self.config.fold)

    def predict_noise(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """Predicted noise [B, C, S, S] of images at noise `level` [B] int64 with class `condition` [B] int64."""
        return self.up(*self.down(noisy, level, condition))

    @torch.inference_mode()
    def sample(self, condition: Tensor, *, steps: int = 20, seed: int = 0) -> Tensor:
        """Pictures [B, 3, S, S] uint8 of the classes `condition` [B], by deterministic DDIM (arXiv 2010.02502).

        The same weights, classes, steps and seed give the same pictures; the caller sets evaluation mode.
        """
        from diffusers import DDIMScheduler

        check_range("steps", steps, 1, self.config.noise_levels, "it is the number of denoising steps, for example 20")
        size = self.config.image_size
        scheduler = DDIMScheduler(self.config.noise_levels, beta_schedule="squaredcos_cap_v2", clip_sample=True)
        scheduler.set_timesteps(steps)
        device = self.signal.device
        shape = (len(condition), self.config.channels, size, size)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
        condition = condition.to(device)
        for level in scheduler.timesteps.tolist():
            levels = torch.full((len(images),), level, dtype=torch.int64, device=device)
            images = scheduler.step(self.predict_noise(images, levels, condition), level, images).prev_sample
        return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().expand(-1, 3, -1, -1)


class DenoiserFeatures(LazyFeatures):
    """A batch that is noised once, and whose bottleneck and predicted noise are computed once.

    The batch holds `pixels` [B, 3, S, S] uint8. It may hold

    * `condition` [B] int64, the class to condition on. Without it the class is "any", so that an objective may ask the
      bottleneck for the class without being told.
    * `level` [B] and `noise` [B, C, S, S], which fix the noising. Without them both are drawn from torch's global
      generator.
    """

    encoder: Denoiser

    @cached_property
    def clean(self) -> Tensor:
        """x_0 [B, C, S, S] in [−1, 1]."""
        pixels = self["pixels"].float() / 127.5 - 1
        return pixels if self.encoder.config.channels == 3 else pixels.mean(1, keepdim=True)

    @cached_property
    def level(self) -> Tensor:
        """t [B] int64."""
        if "level" in self.batch:
            return self["level"]
        return torch.randint(0, self.encoder.config.noise_levels, (len(self.clean),), device=self.clean.device)

    @cached_property
    def noise(self) -> Tensor:
        """ε [B, C, S, S]."""
        return self["noise"] if "noise" in self.batch else torch.randn_like(self.clean)

    @cached_property
    def noisy(self) -> Tensor:
        """x_t [B, C, S, S]."""
        signal = self.encoder.signal[self.level][:, None, None, None]
        return signal.sqrt() * self.clean + (1 - signal).sqrt() * self.noise

    @cached_property
    def condition(self) -> Tensor:
        """Class to condition on [B] int64; "any" where it is absent or hidden."""
        encoder = self.encoder
        unknown = torch.full((len(self.clean),), encoder.any_class, dtype=torch.int64, device=self.clean.device)
        if "condition" not in self.batch:
            return unknown
        if not encoder.training:
            return self["condition"]
        hidden = torch.rand(len(unknown), device=unknown.device) < encoder.config.drop_class
        return torch.where(hidden, unknown, self["condition"])

    @cached_property
    def _down(self) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        return self.encoder.down(self.noisy, self.level, self.condition)

    @property
    def bottleneck(self) -> Tensor:
        """[B, C, h, w]."""
        return self._down[0]

    @cached_property
    def embedding(self) -> Tensor:
        """[B, C], mean of the bottleneck."""
        return self.bottleneck.mean((2, 3))

    @cached_property
    def predicted_noise(self) -> Tensor:
        """[B, C, S, S]."""
        return self.encoder.up(*self._down)
