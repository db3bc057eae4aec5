"""Questions answered with numbers: each checks the answer before it times or judges."""
