"""The peers of the service: the same network behind other servers, one program for each.

The function `serve` of each module is called by an interpreter that has its server installed, in which this folder is
found as the package `serving_peers`: the interpreter needs neither Stageproof nor what Stageproof needs. So these
modules import each other relatively, and beside their server only numpy, Pillow and onnxruntime.

What a peer serves, and how, is in the JSON file that the environment variable SERVING_PEER names (`pipeline.Settings`).
All run the one pipeline of `pipeline`, written as users of ONNX Runtime write it. It has no guard, no abstention and no
isolated decoding, and refuses nothing that Pillow opens: the service of Stageproof does more for each image.
"""
