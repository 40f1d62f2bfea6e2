"""The demo: a service is pushed, built, tested, rolled out, broken twice and never stops answering."""
