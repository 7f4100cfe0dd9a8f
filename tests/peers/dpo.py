"""Compares the losses of preferences with TRL's, and a batch of `tfrlhf.DPO`.

Usage: python -m tests.peers.dpo PEER_PYTHON DIRECTORY [GOLDEN]

TRL computes in its own environment; here follow the losses on the
log-probabilities that it recorded, then loss, gradient and metrics of the
trainer on the same texts and models. GOLDEN keeps the recording.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np

TOLERANCE = 1e-5
CLASSES = {
    "sigmoid": "DPO",
    "aot": "cDPO",
    "robust": "robust DPO",
    "ipo": "IPO",
}


def main(python, directory, golden=None):
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    script = pathlib.Path(__file__).with_name("dpo_record.py")
    with open(directory / "trl.log", "w") as log:
        subprocess.run(
            [python, str(script), str(directory)],
            check=True,
            stdout=log,
            stderr=log,
        )
    recording = json.loads((directory / "recording.json").read_text())
    versions = recording["versions"].items()
    print("there:", ", ".join(f"{name} {x}" for name, x in versions))
    print(
        "Largest differences, relative beyond 1, each to be below "
        f"{TOLERANCE:g}:"
    )
    lines = {
        f"{name}, losses of single rows": x
        for name, x in loss_differences(recording).items()
    } | trainer_differences(recording, directory)
    for name, difference in lines.items():
        verdict = "PASS" if difference < TOLERANCE else "FAIL"
        print(f"  {name:<40}{difference:>8.1e} {verdict}")
    if golden is not None:
        shutil.copy(directory / "recording.json", golden)
    return 0 if all(x < TOLERANCE for x in lines.values()) else 1


def gap(received, expected):
    """Largest difference, relative to what is beyond 1; NaN if one is."""
    received = np.asarray(received, np.float64)
    expected = np.asarray(expected, np.float64)
    return float(
        np.max(np.abs(received - expected) / np.maximum(1.0, abs(expected)))
    )


def loss_differences(recording):
    """Of the pure functions from recorded numbers, by loss."""
    read = recording["log_probs"]
    log_probs = {n: np.array(x, np.float32) for n, x in read.items()}
    found = {}
    for setting in recording["paired"]:
        received = paired(log_probs, setting)
        keep(found, CLASSES[setting["kind"]], gap(received, setting["losses"]))
    sides = [mean(log_probs, "policy", s) for s in ("chosen", "rejected")]
    from tfrlhf import losses

    for setting in recording["simpo"]:
        numbers = setting["beta"], setting["margin"]
        received = losses.simpo_loss(*sides, *numbers)
        keep(found, "SimPO", gap(received, setting["losses"]))
    for setting in recording["orpo"]:
        # TRL adds the cross-entropy of prompt and response to the penalty.
        received = losses.orpo_loss(*sides, setting["beta"]) + sides[0]
        keep(found, "ORPO, penalty", gap(received, setting["penalties"]))
    kto = recording["kto"]
    arrays = [
        np.array(kto[name], np.float32)
        for name in ("policy", "reference", "ratings", "kl")
    ]
    for setting in kto["settings"]:
        numbers = kto_numbers(setting)
        received = losses.kto_loss(*arrays, **numbers)
        keep(found, "KTO", gap(received, setting["losses"]))
        arrays_of_batch = [
            *arrays[:3],
            np.full_like(arrays[3], arrays[3].mean()),
        ]
        received = np.mean(losses.kto_loss(*arrays_of_batch, **numbers))
        keep(found, "KTO", gap(received, setting["batch_loss"]))
    return found


def paired(log_probs, setting):
    from tfrlhf import losses

    names = [
        f"{m}_{s}" for m in ("policy", "ref") for s in ("chosen", "rejected")
    ]
    arrays = [log_probs[name] for name in names]
    beta, smoothing = setting["beta"], setting["label_smoothing"]
    if setting["kind"] == "ipo":
        arrays = [mean(log_probs, *name.split("_")) for name in names]
        return losses.ipo_loss(*arrays, beta)
    if setting["kind"] == "robust":
        return losses.robust_dpo_loss(*arrays, beta, smoothing)
    return losses.dpo_loss(*arrays, beta, smoothing)


def kto_numbers(setting):
    names = ("beta", "desirable_weight", "undesirable_weight")
    return {name: setting[name] for name in names}


def mean(log_probs, model, side):
    return log_probs[f"{model}_{side}"] / log_probs[f"{side}_length"]


def keep(found, name, difference):
    found[name] = max(found.get(name, 0.0), difference)


def trainer_differences(recording, directory):
    """Of a batch of `tfrlhf.DPO`, from the texts on."""
    import keras
    import tensorflow as tf

    import tfrlhf
    from tfrlhf import losses

    # Every loss is traced anew, on purpose.
    tf.get_logger().setLevel("ERROR")
    policy, reference = (
        tfrlhf.Policy.from_preset(directory / name)
        for name in ("policy", "reference")
    )
    dpo = tfrlhf.DPO(policy, reference)
    found = {}
    for setting in recording["paired"]:
        if "batch" not in setting:
            continue
        beta, smoothing = setting["beta"], setting["label_smoothing"]
        loss = {
            "sigmoid": losses.DPOLoss(beta),
            "robust": losses.RobustDPOLoss(beta, smoothing),
            "ipo": losses.IPOLoss(beta),
        }[setting["kind"]]
        dpo.compile(
            keras.optimizers.SGD(0.0), loss, clip_norm=None, jit_compile=False
        )
        logs = dpo.fit(recording["records"], verbose=0).history
        for name, expected in setting["batch"].items():
            # TRL's rewards are of sums, also where the loss reads means.
            of_sums = name.startswith("rewards/") or name == "accuracy"
            if of_sums and loss.mean_over_tokens:
                continue
            part = name if name in ("loss", "gradient_norm") else "metrics"
            part = f"tfrlhf.DPO, {CLASSES[setting['kind']]}, {part}"
            keep(found, part, gap(logs[name][0], expected))
    return found


if __name__ == "__main__":
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3"}
    sys.exit(main(*sys.argv[1:]))
