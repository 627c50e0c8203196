"""Runs for people who look at them from Python: a notebook, a script of their own.

It needs the standard library alone, and Python 3.8, so that the interpreter of the steps can have it without anything
that the tool needs. What it reads is what the rest of the program writes; the tests hold the two together.
"""
