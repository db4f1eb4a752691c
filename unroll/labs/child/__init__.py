"""What runs in the child process, beside a student's code: it observes, and hands back data."""
