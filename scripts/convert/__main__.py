import sys

from . import __doc__ as usage
from . import bert, llama
from .source import Fault

FORMATS = {"llama": llama.convert, "bert": bert.convert}


def main(arguments):
    if len(arguments) != 3 or arguments[0] not in FORMATS:
        print(usage.strip(), file=sys.stderr)
        return 2
    name, path, folder = arguments
    try:
        FORMATS[name](path, folder)
    except Fault as fault:
        message = f"{path}: {fault}"
    except OSError as error:
        message = f"{error.filename or path}: {error.strerror}"
    else:
        return 0
    print(f"convert: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
