"""What the exit codes of the command line mean; which error has which is said by the error."""

EXIT_CODES = {
    0: "done",
    1: "it was tried and did not work out; the message says what did not",
    2: "the command asks for what cannot be: an option, a name, a budget, a layer, a file of results that is not there",
    3: "a package is missing; the message has the pip line",
    4: "the model cannot be reduced, or not by this method",
    5: "a picture is missing or cannot be read",
    6: "the model is missing or cannot be loaded",
    7: "a plug-in cannot be imported, or its code fails",
    8: "training data is missing or cannot be trained on",
}

TORCHVISION = (
    "the torchvision that is installed was made for another torch, and beside it transformers loads no model (operator "
    "torchvision::nms does not exist); pip uninstall torchvision, or install the one made for this torch"
)


def is_torchvisions(error: RuntimeError) -> bool:
    """Whether an error is that of a torchvision whose operators the installed torch cannot take.

    >>> is_torchvisions(RuntimeError("operator torchvision::nms does not exist")), is_torchvisions(RuntimeError("no"))
    (True, False)
    """
    return "operator torchvision::" in str(error)
