const copy = document.getElementById("copy");
if (copy) {
  copy.hidden = false;
  copy.addEventListener("click", () => copy_text(document.getElementById("command"), copy));
}
