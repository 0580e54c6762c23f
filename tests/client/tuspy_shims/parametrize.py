"""In place of the package ``parametrize``: a test method of unittest that runs for each value."""


def parametrize(name, values):
    def decorate(function):
        def run(self):
            for value in values:
                self.setUp()
                function(self, **{name: value})

        run.__name__ = function.__name__
        return run

    return decorate
