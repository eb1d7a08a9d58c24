package main

func measureAPILoad(o *options) (string, error) { return "", nil }
