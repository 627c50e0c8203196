"""What the user's own interpreter runs for a python step; it needs nothing but the standard library.

    python python_step.py REQUEST.json RESPONSE.json

An interpreter compiles its main script again at each start, so the work is in the modules beside this file, which it
keeps compiled. They are reached as a package of a private name, never by `sys.path`: the user's modules cannot shadow
them, nor they the user's.
"""


def _run() -> int:
    import os
    import sys

    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # this folder, which Python puts there for its main script
    package = type(sys)("_runnable_ci_worker")
    package.__path__ = [os.path.dirname(__file__)]
    sys.modules[package.__name__] = package
    # PYTHONDONTWRITEBYTECODE is about the user's folders; here it would make each step's start 1.7 times as long.
    setting, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    step = __import__(package.__name__ + ".step", fromlist=["main"])
    sys.dont_write_bytecode = setting
    exit_code: int = step.main(*sys.argv[1:])
    return exit_code


if __name__ == "__main__":  # a process that multiprocessing spawns imports this file again
    raise SystemExit(_run())
