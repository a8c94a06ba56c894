"""Resumes a checkpoint that mdlm exported with PyTorch Lightning itself, in a module with what the authors' has: a backbone,
an average of its weights that is saved beside it, counters of the loops that are read when it is loaded.

Needs `torch` and `lightning`; a CPU is enough. Prints JSON: what was restored, and the counters after further updates. A fault
is printed and ends with status 1.

    python tests/peers/resume_lightning.py LAST.ckpt --shape nano --steps 2 --save NEXT.ckpt
"""

import argparse
import json
import logging
import sys
import warnings

# What Lightning says of a trainer without loggers and with few workers.
warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

import lightning
import torch
from torch.nn import functional as F
from torch_dit import ROTARY_BASE, Dit
from torch_mdlm import SHAPES

BATCH = 4


class RotaryBuffer(torch.nn.Module):
    """The buffer that the authors' network has and this peer computes anew."""

    def __init__(self, half):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / ROTARY_BASE ** (torch.arange(0, 2 * half, 2).float() / (2 * half)))


class Average:
    """An average of weights without names, in the order of the parameters."""

    def __init__(self, weights, decay):
        self.decay, self.updates = decay, 0
        self.shadow = [weight.detach().clone() for weight in weights]

    def update(self, weights):
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mean, weight in zip(self.shadow, weights, strict=True):
            mean.lerp_(weight.detach(), share)


class Denoiser(lightning.LightningModule):
    def __init__(self, config, shape):
        super().__init__()
        self.config, self.shape = config, shape
        vocabulary, self.length, width, heads, blocks, conditioning = SHAPES[shape]
        self.mask = config["mask_token_id"]
        self.backbone = Dit(vocabulary, width, heads, blocks, conditioning)
        self.backbone.rotary_emb = RotaryBuffer(width // heads // 2)
        self.average = Average(self.backbone.parameters(), config["training"]["ema"])
        self.counters, self.restored = None, None

    def on_load_checkpoint(self, checkpoint):
        saved = checkpoint["ema"]
        self.average.decay, self.average.updates = saved["decay"], saved["num_updates"]
        self.average.shadow = [mean.clone() for mean in saved["shadow_params"]]
        # The authors' loader goes on from these.
        loop = checkpoint["loops"]["fit_loop"]
        self.counters = {
            "epochs": loop["epoch_progress"]["current"]["completed"],
            "batches": loop["epoch_loop.batch_progress"]["current"]["completed"],
        }

    def on_save_checkpoint(self, checkpoint):
        checkpoint["ema"] = {
            "decay": self.average.decay,
            "num_updates": self.average.updates,
            "shadow_params": self.average.shadow,
        }

    def configure_optimizers(self):
        settings = self.config["optim"]
        optimizer = torch.optim.AdamW(
            self.backbone.parameters(),
            lr=settings["lr"],
            betas=(settings["beta1"], settings["beta2"]),
            eps=settings["eps"],
            weight_decay=settings["weight_decay"],
        )
        warmup = self.config["lr_scheduler"]["num_warmup_steps"]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / max(warmup, 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self):
        optimizer, schedule = self.optimizers().optimizer, self.lr_schedulers()
        self.restored = {
            "global_step": self.trainer.global_step,
            "schedule": schedule.last_epoch,
            "learning_rate": schedule.get_last_lr()[0],
            "weights": [weight.detach().clone() for weight in self.backbone.parameters()],
            "average": [mean.clone() for mean in self.average.shadow],
            "adamw": [
                {name: value.clone() for name, value in optimizer.state[weight].items()}
                for weight in self.backbone.parameters()
            ],
        }

    def training_step(self, rows, _):
        """Cross-entropy of masked tokens, weighed with 1/t: MDLM's bound under log-linear noise."""
        t = (torch.arange(len(rows)) + 0.5) / len(rows)
        masked = torch.rand(rows.shape) < t[:, None]
        logits = self.backbone(torch.where(masked, self.mask, rows), torch.zeros(len(rows)))
        logits[..., self.mask] = -torch.inf
        nll = F.cross_entropy(logits.transpose(1, 2), rows, reduction="none")
        return (nll * masked / t[:, None]).mean()

    def optimizer_step(self, *arguments, **named):
        super().optimizer_step(*arguments, **named)
        self.average.update(self.backbone.parameters())


def same(what, found, expected):
    if len(found) != len(expected):
        sys.exit(f"{what}: {len(found)} tensors, expected {len(expected)}")
    for place, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours.dtype != theirs.dtype or not torch.equal(ours, theirs):
            sys.exit(f"{what}: tensor {place} is not that of the file")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--shape", choices=SHAPES, default="nano")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--save")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    file = torch.load(arguments.file, map_location="cpu", weights_only=True)
    weights = [tensor for name, tensor in file["state_dict"].items() if not name.endswith("inv_freq")]

    # For inference: the settings come from the file.
    module = Denoiser.load_from_checkpoint(arguments.file, map_location="cpu", shape=arguments.shape)
    same("weights", list(module.backbone.parameters()), weights)
    same("average", module.average.shadow, file["ema"]["shadow_params"])

    # To train on.
    module = Denoiser(file["hyper_parameters"]["config"], arguments.shape)
    start = file["global_step"]
    trainer = lightning.Trainer(
        max_steps=start + arguments.steps,
        accelerator="cpu",
        gradient_clip_val=1.0,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows = torch.randint(0, module.mask, (BATCH * arguments.steps, module.length))
    loader = torch.utils.data.DataLoader(rows, batch_size=BATCH)
    trainer.fit(module, loader, ckpt_path=arguments.file)
    restored = module.restored
    same("restored weights", restored["weights"], weights)
    same("restored average", restored["average"], file["ema"]["shadow_params"])
    state = file["optimizer_states"][0]["state"]
    for name in ("step", "exp_avg", "exp_avg_sq"):
        saved = [state[place][name] for place in range(len(weights))]
        same(f"AdamW's `{name}`", [own[name] for own in restored["adamw"]], saved)
    if not all(weight.isfinite().all() for weight in module.backbone.parameters()):
        sys.exit("weights are not finite after further updates")
    if all(torch.equal(a, b) for a, b in zip(module.backbone.parameters(), weights, strict=True)):
        sys.exit("further updates changed no weight")
    if arguments.save:
        trainer.save_checkpoint(arguments.save)
    after = trainer.optimizers[0].state_dict()["state"]
    print(
        json.dumps(
            {
                "lightning": lightning.__version__,
                "counters": module.counters,
                "restored": {key: restored[key] for key in ("global_step", "schedule", "learning_rate")},
                "after": {
                    "global_step": trainer.global_step,
                    "schedule": trainer.lr_scheduler_configs[0].scheduler.last_epoch,
                    "updates": sorted({float(own["step"]) for own in after.values()}),
                    "average_updates": module.average.updates,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
