"""The kernel of a notebook step, in the user's own interpreter.

`python -m ipykernel_launcher` would look for modules in the working directory before anything of the notebook runs, and
so count as a look at what is in it.
"""

import sys

if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # this folder, which Python puts there for its main script

from ipykernel import kernelapp

if __name__ == "__main__":
    kernelapp.launch_new_instance()
