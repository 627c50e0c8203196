def nested():
    return 1
