export const tour = {
  step: (now: number, all: number) => `${now} of ${all}`,
  back: "Back",
  next: "Next",
  keep: "Keep",
  three: {
    title: "Three things at once",
    text: "To read “cat”, a model needs black (which cat?), sat (what did it do?) and the mat (where?). Three links hold the sentence together.",
    act: "Press each arc.",
    keep: "One word needs several others at once.",
  },
};
