from samplerbench.app.main import entry

if __name__ == "__main__":
    entry()
