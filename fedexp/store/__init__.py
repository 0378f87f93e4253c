"""What was computed once, for whoever would compute the same bits again."""
