"""Answers requests with SavedModels as TF Serving does: in a session.

Imports nothing but TensorFlow. Reads, from standard input, a list of
`{"signature": name, "inputs": {name: value}}` for each directory of a
SavedModel, `{directory: [request, ...]}`; prints `{directory: [answer, ...]}`,
an answer being `{"outputs": {name: value}}` or `{"error": message}`.
"""

import json
import sys

import tensorflow as tf


def answer_all(directory, requests):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        # The loader of the C++ server.
        graph = tf.compat.v1.saved_model.load(session, ["serve"], directory)
        return [answer(session, graph.signature_def, x) for x in requests]


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
    return {"outputs": {name: plain(x) for name, x in outputs.items()}}


def plain(array):
    if array.dtype == object:
        return [text.decode() for text in array]
    return array.tolist()


def main():
    answers = {
        directory: answer_all(directory, requests)
        for directory, requests in json.load(sys.stdin).items()
    }
    foreign = {"keras_hub", "tensorflow_text", "tfrlhf"} & set(sys.modules)
    if foreign:
        raise RuntimeError(f"imported {foreign}")
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
