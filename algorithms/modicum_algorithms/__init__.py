"""The families of algorithms; each uses the platform only through `import modicum`."""
