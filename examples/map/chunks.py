"""What is done with each chunk, and with all of them."""

import os


def process(chunk: int):
    """Return the result of a chunk."""
    return chunk * 10


def process_by_service(chunk: int):
    """Return the result of a chunk; one of them needs a service, of which a variable tells."""
    if chunk == 2 and os.environ.get("SERVICE") != "up":
        raise ConnectionError("the service is down")
    return chunk * 10


def read(chunk, processed_python, processed_notebook, processed_shell):
    """Take what the steps of the branch returned for its own chunk."""
    assert [processed_python, processed_notebook, processed_shell] == [chunk * 10, chunk * 100, chunk * 1000]


def collect(processed_python, processed_notebook, processed_shell):
    """Take the results of all chunks, as lists in their order."""
    assert processed_notebook == [10 * value for value in processed_python]
    assert processed_shell == [100 * value for value in processed_python]
    print(f"all: {processed_python}")


def largest(processed):
    """Return the largest of the results of all chunks."""
    return max(processed)


def chunks(size: int = 4):
    """Return the chunks that there are: they are known only now."""
    return list(range(1, size + 1))


def total(processed):
    """Print the results of all chunks."""
    print(f"all: {processed}, sum {sum(processed)}")
