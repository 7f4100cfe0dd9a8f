"""Records what TRL's preference trainers compute for small random models.

Runs in its own environment, without tfrlhf. TRL reads the texts, runs both
models and computes every loss; log-probabilities are taken from its own
functions.

Usage: python tests/peers/dpo_record.py DIRECTORY
"""

import json
import os
import pathlib
import sys
import types

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}

import torch
import transformers
import trl
from datasets import Dataset
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

RECORDS = [
    ("The weather", " is fine today.", " rain"),
    ("The park is green and the trees are tall", " and old", ", let us go."),
    ("Rain on the river,", " rain", " tall trees give us shade in the park"),
    ("Tall trees", " give us shade.", " give us rain."),
]
RATED = [
    ("The weather", " is fine today.", True),
    ("Rain on the river,", " tall trees give us shade", False),
    ("Tall trees", " give us shade.", True),
    ("let us go", " to the river", False),
]
BETAS = (0.1, 0.5)
SMOOTHING = (0.0, 0.2)
# TRL's name and whether it smooths labels. `aot` on one pair is cDPO.
PAIRED = {"sigmoid": False, "aot": True, "robust": True, "ipo": False}
SIMPO = ((2.0, 0.5), (2.5, 1.4))
KTO_WEIGHTS = ((1.0, 1.0), (1.5, 0.6))


def main(directory):
    directory = pathlib.Path(directory)
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    models = {
        name: make_model(tokenizer, seed)
        for seed, name in enumerate(("policy", "reference"))
    }
    for name, model in models.items():
        model.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    libraries = (torch, transformers, trl)
    recording = {
        "versions": {m.__name__: m.__version__ for m in libraries},
        "records": [
            dict(zip(("prompt", "chosen", "rejected"), r, strict=True))
            for r in RECORDS
        ],
        "rated": [
            {"prompt": p, "response": r, "rating": int(good)}
            for p, r, good in RATED
        ],
        **of_pairs(models, tokenizer, directory),
        "kto": of_ratings(models, tokenizer, directory),
    }
    text = json.dumps(recording, indent=1)
    (directory / "recording.json").write_text(text + "\n")


def make_tokenizer():
    """Byte-level BPE with a pad and an end token."""
    from tokenizers import Tokenizer
    from tokenizers import decoders
    from tokenizers import models
    from tokenizers import pre_tokenizers
    from tokenizers import trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        ["".join(record) for record in RECORDS],
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<pad>", "<eos>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>"
    )


def make_model(tokenizer, seed):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        n_embd=48,
        n_layer=2,
        n_head=4,
        n_positions=64,
        # With the usual 0.02 every token would be about as likely.
        initializer_range=0.2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return transformers.GPT2LMHeadModel(config).eval()


def settings(kind, directory):
    return kind(
        output_dir=str(directory / "trl"),
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_num_workers=0,
    )


def first_batch(trainer):
    """The rows in their order, as TRL collates them."""
    rows = [trainer.train_dataset[i] for i in range(len(RECORDS))]
    return trainer.data_collator(rows)


def of_pairs(models, tokenizer, directory):
    columns = zip(*RECORDS, strict=True)
    names = ("prompt", "chosen", "rejected")
    trainer = trl.DPOTrainer(
        models["policy"],
        models["reference"],
        settings(trl.DPOConfig, directory),
        train_dataset=Dataset.from_dict(
            {n: list(c) for n, c in zip(names, columns, strict=True)}
        ),
        processing_class=tokenizer,
    )
    batch = first_batch(trainer)
    pairs = len(RECORDS)
    rows = [
        {name: x[[row, row + pairs]] for name, x in batch.items()}
        for row in range(pairs)
    ]
    sides = ("chosen", "rejected")
    log_probs = {
        f"{name}_{side}": x.tolist()
        for name, model in (
            ("policy", trainer.model),
            ("ref", trainer.ref_model),
        )
        for side, x in zip(
            sides, trainer.compute_ref_log_probs(model, batch), strict=True
        )
    }
    lengths = batch["completion_mask"].sum(dim=1).tolist()
    log_probs |= {
        "chosen_length": lengths[:pairs],
        "rejected_length": lengths[pairs:],
    }
    return {
        "log_probs": log_probs,
        "paired": [
            of_setting(trainer, rows, batch, kind, beta, smoothing)
            for kind, smooths in PAIRED.items()
            for beta in BETAS
            for smoothing in (SMOOTHING if smooths else SMOOTHING[:1])
        ],
        "simpo": [of_simpo(log_probs, *numbers) for numbers in SIMPO],
        "orpo": [of_orpo(log_probs, beta) for beta in BETAS],
    }


def of_setting(trainer, rows, batch, kind, beta, smoothing):
    """Losses of single pairs; loss, metrics and gradient of the batch."""
    trainer.loss_types = [kind]
    trainer.beta, trainer.label_smoothing = beta, smoothing
    made = {"kind": kind, "beta": beta, "label_smoothing": smoothing}
    made["losses"] = [
        trainer.compute_loss(trainer.model, dict(row)).item() for row in rows
    ]
    if kind == "aot":
        # Of several pairs it sorts, which is another loss.
        return made
    metrics = trainer._metrics["eval"]
    metrics.clear()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    squares = [(p.grad**2).sum() for p in trainer.model.parameters()]
    made["batch"] = {
        "loss": loss.item(),
        "gradient_norm": float(torch.stack(squares).sum().sqrt()),
        "log_probs/chosen": metrics["logps/chosen"][-1],
        "log_probs/rejected": metrics["logps/rejected"][-1],
        "accuracy": metrics["rewards/accuracies"][-1],
        "rewards/chosen": metrics["rewards/chosen"][-1],
        "rewards/rejected": metrics["rewards/rejected"][-1],
        "rewards/margin": metrics["rewards/margins"][-1],
    }
    return made


def means(log_probs):
    return [
        torch.tensor(log_probs[f"policy_{side}"])
        / torch.tensor(log_probs[f"{side}_length"])
        for side in ("chosen", "rejected")
    ]


def bare(**numbers):
    """What the functions read of a trainer beside their arguments."""
    accelerator = types.SimpleNamespace(device=torch.device("cpu"))
    return types.SimpleNamespace(accelerator=accelerator, **numbers)


def of_simpo(log_probs, beta, margin):
    trainer = bare(
        alpha=0.0,
        beta=beta,
        loss_type="simpo",
        simpo_gamma=margin,
        label_smoothing=0.0,
    )
    found, *_ = CPOTrainer.cpo_loss(trainer, *means(log_probs))
    return {"beta": beta, "margin": margin, "losses": found.tolist()}


def of_orpo(log_probs, beta):
    """The odds ratio's part, which TRL takes from the cross-entropy."""
    found, *_ = ORPOTrainer.odds_ratio_loss(bare(beta=beta), *means(log_probs))
    return {"beta": beta, "penalties": (-found).tolist()}


def of_ratings(models, tokenizer, directory):
    prompts, responses, labels = (list(x) for x in zip(*RATED, strict=True))
    trainer = trl.KTOTrainer(
        models["policy"],
        models["reference"],
        settings(trl.KTOConfig, directory),
        train_dataset=Dataset.from_dict(
            {"prompt": prompts, "completion": responses, "label": labels}
        ),
        processing_class=tokenizer,
    )
    batch = first_batch(trainer)
    policy, policy_kl = trainer.compute_ref_log_probs(trainer.model, batch)
    ref, ref_kl = trainer.compute_ref_log_probs(trainer.ref_model, batch)
    rows = [
        {name: x[row : row + 1] for name, x in batch.items()}
        for row in range(len(RATED))
    ]
    made = []
    for beta in BETAS:
        for good, bad in KTO_WEIGHTS:
            trainer.beta = beta
            trainer.desirable_weight, trainer.undesirable_weight = good, bad
            found = [
                trainer.compute_loss(trainer.model, dict(row)).item()
                for row in rows
            ]
            whole = trainer.compute_loss(trainer.model, dict(batch)).item()
            made.append(
                {
                    "beta": beta,
                    "desirable_weight": good,
                    "undesirable_weight": bad,
                    "losses": found,
                    "batch_loss": whole,
                }
            )
    return {
        "policy": policy.tolist(),
        "reference": ref.tolist(),
        "ratings": [float(label) for label in labels],
        # Of the response of another row, for each row alone.
        "kl": (policy_kl - ref_kl).tolist(),
        "settings": made,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
