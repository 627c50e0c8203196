"""Attempts that run elsewhere: started by an executor, run by a worker of this program there, followed from here."""
