"""Answers requests with a SavedModel as TF Serving does: in a session.

Imports nothing but TensorFlow. Usage:
`python session_client.py DIRECTORY < requests.json`, a list of
`{"signature": name, "inputs": {name: value}}`; prints a list of
`{"outputs": {name: value}}` or `{"error": message}`.
"""

import json
import sys

import tensorflow as tf


def answer(session, signatures, request):
    signature = signatures[request["signature"]]
    feed = {
        signature.inputs[name].name: value
        for name, value in request["inputs"].items()
    }
    fetch = {name: info.name for name, info in signature.outputs.items()}
    try:
        outputs = session.run(fetch, feed)
    except tf.errors.InvalidArgumentError as error:
        return {"error": error.message}
    return {"outputs": {k: v.tolist() for k, v in outputs.items()}}


def main():
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        # The loader of the C++ server.
        graph = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
        answers = [
            answer(session, graph.signature_def, request)
            for request in json.load(sys.stdin)
        ]
    foreign = {"keras_hub", "tensorflow_text", "tfrlhf"} & set(sys.modules)
    if foreign:
        raise RuntimeError(f"imported {foreign}")
    json.dump(answers, sys.stdout, default=bytes.decode)


if __name__ == "__main__":
    main()
